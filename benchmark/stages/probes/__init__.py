"""Probes of trained models for the audit."""
