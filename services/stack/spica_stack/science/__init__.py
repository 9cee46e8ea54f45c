"""Pure parts of the stack service: arrays and dataclasses in, arrays and dataclasses out."""
