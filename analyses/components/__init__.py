"""Inside the models of the Bayesian account: which parts of a transformer carry memorising, and which generalising."""
