"""Carries out a plan: publishes to every target and says what became of each."""
