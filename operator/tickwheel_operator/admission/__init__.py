"""What the API server can refuse at apply time: ValidatingAdmissionPolicies that are made from the models.

`python -m tickwheel_operator.admission [--check] [FILE]` writes them for the chart; nothing imports this at run time.
"""
