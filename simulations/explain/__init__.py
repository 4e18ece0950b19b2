"""`polyfed explain`: what a run's model looks at, beside that of another run."""
