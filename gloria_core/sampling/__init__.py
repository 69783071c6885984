"""From noise to latents: noise schedule, solvers, guidance, chunk plans and the long-video generator."""
