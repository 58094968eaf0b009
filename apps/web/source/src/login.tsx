// The door: a name and a password, or the link that the command printed.
import { type FormEvent, useState } from "react";
import { type Failure, send } from "./api";
import { Mark } from "./mark";
import { Notice } from "./parts/bits";
import type { Me } from "./types";

interface Props {
  failure: Failure;
  again: boolean;
  onEnter: (me: Me) => void;
}

export function Login({ failure, again, onEnter }: Props) {
  const [user, setUser] = useState("");
  const [password, setPassword] = useState("");
  const [wrong, setWrong] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);

  async function enter(event: FormEvent): Promise<void> {
    event.preventDefault();
    setBusy(true);
    setWrong(null);
    try {
      onEnter(await send<Me>("POST", "/api/login", { user, password }));
    } catch (thrown) {
      setWrong(thrown);
    } finally {
      setBusy(false);
    }
  }

  return (
    <main className="alone login">
      <h1 className="login-brand">
        <Mark /> verbal
      </h1>
      {again && <p className="login-ended">Your session ended. Sign in to go on where you were.</p>}
      {failure.form ? (
        <form onSubmit={(event) => void enter(event)} className="login-form">
          <label>
            Name
            <input value={user} onChange={(e) => setUser(e.target.value)} autoComplete="username" autoFocus required />
          </label>
          <label>
            Password
            <input
              type="password"
              value={password}
              onChange={(e) => setPassword(e.target.value)}
              autoComplete="current-password"
              required
            />
          </label>
          {wrong !== null && <Notice failure={wrong} />}
          <button type="submit" className="button primary" disabled={busy}>
            Sign in
          </button>
        </form>
      ) : (
        <div className="login-form">
          <p>
            Open the link that <code>verbal ui</code> printed in its terminal: it lets this browser in. A link works
            once; <code>verbal ui</code> prints a new one each time it starts.
          </p>
          <p className="muted">{failure.todo}</p>
        </div>
      )}
      <p className="login-foot muted">
        No account? Whoever runs the server makes one: <code>verbal users add NAME</code>
      </p>
    </main>
  );
}
