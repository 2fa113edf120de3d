"""Tests of the brokers: one contract for all kinds, and each kind's own."""
