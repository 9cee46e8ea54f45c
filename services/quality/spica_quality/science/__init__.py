"""What can be measured on pixels, and how it is judged: arrays and dataclasses in and out."""
