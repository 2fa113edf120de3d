"""The processes and ports: ingress and admin servers, workers and their supervisor."""
