"""How much each may ask for: rates, counted exactly over all processes, and what is left told with each answer."""
