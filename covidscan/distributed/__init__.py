"""Devices, processes, preemption."""
