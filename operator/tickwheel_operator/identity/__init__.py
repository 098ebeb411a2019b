"""Who is calling, and what they may do: asked of the API server, remembered for seconds. HTTP is the gateway's."""
