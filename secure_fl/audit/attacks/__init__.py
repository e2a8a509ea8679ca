"""Attacks as an adversary would make them, each with its chance level, defence off and on."""
