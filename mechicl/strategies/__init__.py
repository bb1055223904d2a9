"""The Bayesian account of training: what two predictors and three numbers say of a transformer's predictions."""
