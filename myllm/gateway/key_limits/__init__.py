"""What keys are limited to: requests, tokens and requests at once, and which models exist for them.

Limits hold for one server: two that share a store count separately.
"""
