"""Do answers follow when attention to demonstrations is replaced?"""
