"""NATS and PostgreSQL from wheels, run as children of `spica up`: the default that needs no set-up."""
