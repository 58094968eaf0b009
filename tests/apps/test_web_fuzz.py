"""Whatever is sent to the web app, it answers with sense: no failure of the server, and nothing of its places."""

from __future__ import annotations

import json
import random

import pytest
import yarl
from web_world import local, served

from verbal.apps.web.pages import ROUTES

ODD = [
    None, True, 0, -1, 2**70, 1.5, float("inf"), "", " ", "x", "\x00", "\ud800", "a" * 3000, "../../etc/passwd",
    "' OR 1=1 --", "<script>", [], [1], ["x"], {}, {"a": 1}, [[[]]], "NaN", "🙂" * 50, "up", "down", "words", "edit",
    "regenerate", "sql", "choose", "approve", "narrow", "retire", "share", "team", "global", "chat", "shop",
]  # fmt: skip
KEYS = [
    "kind", "text", "sql", "number", "etag", "title", "action", "when", "boundary", "to", "version", "questions", "a",
    "b", "db", "user", "password", "model", "memory",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
async def test_odd_requests_are_answered_with_sense(tmp_path, seed):
    draw = random.Random(seed)
    async with served(tmp_path) as server:
        me = await local(server)
        chat = await me.chat("how many active customers?")
        turn = chat["turns"][0]["id"]
        said = await me.post(f"/api/turns/{turn}/feedback", {"kind": "words", "text": "active customers have status A"})
        ids = [chat["id"], turn, said["correction"], "r1", "zzz", "%00", "%F0%9F%99%82", "a%2Fb", "%ff", "0", "-1"]
        names = ["sql-shop", "chat-user-local", "x", "%00", "sql-shop@1", "..%2f"]
        for _ in range(120):
            route = draw.choice([r for r in ROUTES if r.path != "/api/logout" and r.method != "DELETE"])
            path = route.path.replace("{id:.+}", draw.choice(ids)).replace("{id}", draw.choice(ids))
            path = path.replace("{name}", draw.choice(names)).replace(
                "{tail:.*}", draw.choice([*ids, "index.html", "x.js"])
            )
            if draw.random() < 0.4:
                given = ["", "x", "-1", "1", "9" * 30, "%00", "%ff", "skill", "markdown"]
                keys = draw.sample(["offset", "limit", "a", "b", "format", "all", "token"], 2)
                path += "?" + "&".join(f"{key}={draw.choice(given)}" for key in keys)
            body = {draw.choice(KEYS): draw.choice(ODD) for _ in range(draw.randint(0, 5))}
            data = json.dumps(body).encode() if route.method != "GET" else None
            headers = {**me.headers, "Content-Type": "application/json"}
            url = yarl.URL(server.url + path, encoded=True)
            asked = me.session.request(route.method, url, data=data, headers=headers, allow_redirects=False)
            async with asked as answer:
                text = (await answer.read()).decode("utf-8", "replace")
            assert answer.status < 500 and '"code": "server"' not in text, (route.method, path, body, text[:500])
            assert str(tmp_path) not in text, (route.method, path, body, text[:500])
        assert (await me.get("/api/me"))["user"] == "local" and not any(
            held.busy for held in server.site.talks._open.values()
        )
