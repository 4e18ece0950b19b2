"""`polyfed deploy`: Flower's SuperLink and SuperNodes on several machines, behind TLS and known keys."""
