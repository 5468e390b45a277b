"""Admission and routing: a pure scheduler decides, the gateway carries out."""
