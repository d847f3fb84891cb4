"""Certificates of an admission webhook: their life, their Secret, their serving."""
