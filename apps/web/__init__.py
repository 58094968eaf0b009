"""The web app: chat, SQL assistant, memory, runs and comparison in a browser, on the server of the gateway."""
