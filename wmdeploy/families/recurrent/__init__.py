"""The recurrent family: DreamerV3's recurrent state-space model (Hafner et al. 2023)."""
