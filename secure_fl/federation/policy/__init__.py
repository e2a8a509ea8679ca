"""What a site accepts of a plan: its policy, the plan's terms and cost, its signed refusal."""
