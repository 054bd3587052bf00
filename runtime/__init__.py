"""The device floor: everything a robot needs to recognise emotion, and nothing it does not."""
