"""Cardio.AI.Pro: finds the beats of an ECG segment and names its rhythm."""
