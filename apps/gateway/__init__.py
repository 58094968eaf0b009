"""Any model behind OpenAI's chat completions, exchanged without a pause: the app that `verbal serve` runs."""

from .routes import Route, read_routes
from .served import Served
from .server import Gateway
from .switch import Switch

__all__ = ["Gateway", "Route", "Served", "Switch", "read_routes"]
