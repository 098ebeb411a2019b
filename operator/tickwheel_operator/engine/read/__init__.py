"""Pure reads of all that is below: views for people and the projection, and whom an exception was about."""
