"""`polyfed doctor`: what this machine has, what would keep runs from working, and what a scenario needs."""
