"""What a client computes with: its examples, the modules it trains, its sketch."""
