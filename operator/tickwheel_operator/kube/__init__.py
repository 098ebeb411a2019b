"""The Kubernetes API for all who speak to it: one client, and one taxonomy of what may come of a request."""
