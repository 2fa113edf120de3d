"""What the contract suite needs to know of each kind of broker, and how it looks behind its back.

A new kind of broker brings a `Harness` of its own, and one class in `test_contract.py`.
"""
