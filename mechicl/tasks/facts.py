"""Two small tasks that need no download: capitals of countries, and the sentiment of short remarks."""

from __future__ import annotations

import pandas as pd

from mechicl.tasks.fewshot_task import FewShotTask

CAPITALS = {
    "Afghanistan": "Kabul", "Albania": "Tirana", "Algeria": "Algiers", "Argentina": "Buenos Aires",
    "Armenia": "Yerevan", "Australia": "Canberra", "Austria": "Vienna", "Bangladesh": "Dhaka", "Belgium": "Brussels",
    "Bulgaria": "Sofia", "Cambodia": "Phnom Penh", "Canada": "Ottawa", "Chile": "Santiago", "China": "Beijing",
    "Colombia": "Bogotá", "Croatia": "Zagreb", "Cuba": "Havana", "Denmark": "Copenhagen", "Ecuador": "Quito",
    "Egypt": "Cairo", "Ethiopia": "Addis Ababa", "Finland": "Helsinki", "France": "Paris", "Germany": "Berlin",
    "Ghana": "Accra", "Greece": "Athens", "Hungary": "Budapest", "Iceland": "Reykjavik", "India": "New Delhi",
    "Indonesia": "Jakarta", "Iran": "Tehran", "Iraq": "Baghdad", "Ireland": "Dublin", "Italy": "Rome",
    "Jamaica": "Kingston", "Japan": "Tokyo", "Jordan": "Amman", "Kenya": "Nairobi", "Latvia": "Riga",
    "Lebanon": "Beirut", "Libya": "Tripoli", "Lithuania": "Vilnius", "Mongolia": "Ulaanbaatar", "Morocco": "Rabat",
    "Nepal": "Kathmandu", "Netherlands": "Amsterdam", "Norway": "Oslo", "Peru": "Lima", "Poland": "Warsaw",
    "Portugal": "Lisbon", "Romania": "Bucharest", "Russia": "Moscow", "Senegal": "Dakar", "Serbia": "Belgrade",
    "Spain": "Madrid", "Sudan": "Khartoum", "Sweden": "Stockholm", "Thailand": "Bangkok", "Turkey": "Ankara",
    "Ukraine": "Kyiv", "Uruguay": "Montevideo", "Vietnam": "Hanoi",
}  # fmt: skip

PLEASED = (
    "The soup was warm, rich and full of flavour.", "A charming little hotel with the kindest staff.",
    "I laughed from the first scene to the last.", "The battery still lasts two days, which is superb.",
    "Our guide made the old town come alive.", "Best concert I have been to in years.",
    "The room was spotless and the view was lovely.", "A moving story, beautifully told.",
    "They repaired my bike quickly and for a fair price.", "The bread here is a small miracle.",
    "Clear instructions and an easy set-up; very happy.", "The cast is brilliant and the music is a joy.",
    "Friendly neighbours and a wonderful garden.", "This lamp gives a soft and pleasant light.",
    "The lecture was witty, clear and far too short.", "Great coffee, and always a smile at the counter.",
    "The seats are so comfortable that I fell asleep.", "An honest and delightful book about growing old.",
    "Our children loved every minute of the show.", "The new jacket kept me dry all day; excellent.",
    "Fresh fish, fair prices and a perfect terrace.", "What a graceful and clever film.",
    "The support team solved my problem at once.", "I would gladly visit this museum again.",
)  # fmt: skip

DISPLEASED = (
    "The soup was cold and tasted of nothing.", "A gloomy hotel with rude staff and thin walls.",
    "I looked at my watch from the first scene on.", "The battery dies after an hour, which is hopeless.",
    "Our guide was late, bored and often wrong.", "Worst concert I have been to in years.",
    "The room was dirty and smelled of smoke.", "A dull story, clumsily told.",
    "They broke my bike and charged me twice for it.", "The bread here is stale and far too salty.",
    "Confusing instructions and missing screws; very annoyed.", "The cast is wooden and the music is a pain.",
    "Noisy neighbours and a neglected garden.", "This lamp flickers and hurts my eyes.",
    "The lecture was muddled, tedious and far too long.", "Bitter coffee, and always a frown at the counter.",
    "The seats are so hard that my back still aches.", "A dishonest and tiresome book about growing old.",
    "Our children hated every minute of the show.", "The new jacket leaked within minutes; useless.",
    "Old fish, high prices and a filthy terrace.", "What a lazy and stupid film.",
    "The support team ignored my problem for weeks.", "I would never visit this museum again.",
)  # fmt: skip


def capitals_task() -> FewShotTask:
    """Country to capital: an open set of labels, one row each, many of them of several tokens.

    The template does not say what is asked: it must be learned from the demonstrations.
    """
    frame = pd.DataFrame({"text": list(CAPITALS), "label": list(CAPITALS.values())})
    return FewShotTask("capitals", frame, template="Input: {text}\nOutput: {label}\n\n")


def sentiment_task() -> FewShotTask:
    """Short remarks, positive or negative, 24 of each."""
    texts = [*PLEASED, *DISPLEASED]
    labels = ["positive"] * len(PLEASED) + ["negative"] * len(DISPLEASED)
    return FewShotTask("sentiment", pd.DataFrame({"text": texts, "label": labels}))
