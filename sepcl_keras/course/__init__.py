"""What the notebooks share: profiles, artifacts, what they show, and the study."""
