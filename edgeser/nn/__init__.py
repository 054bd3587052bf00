"""Building blocks of the models: attention, transformer layers, stems, positions."""
