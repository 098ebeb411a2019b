"""What handlers take and return: the JSON Schemas that workers register, and the check of parameters against them."""
