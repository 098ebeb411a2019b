"""The gateway's TLS: the authority that workers trust, the leaf that a replica shows, and how both are renewed."""
