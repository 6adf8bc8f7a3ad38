"""A provider for comparisons: it says the same thing to the same question, whoever carries the question there.

Each answer tells in `x-seen` what the provider was asked, so whoever compares answers compares the requests too.
"""
