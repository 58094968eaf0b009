"""The web app: chat, SQL assistant, memory, runs and comparison in a browser, on the server of the gateway."""

from .pages import Pages, WebServer
from .site import Site

__all__ = ["Pages", "Site", "WebServer"]
