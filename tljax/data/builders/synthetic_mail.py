"""Synthetic e-mail: sentences put together from phrases, by a seed. No person wrote any of it."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

NAMES = 'Anna Ben Carla David Elif Farid Grace Hanna Ivan Jo Karim Lena Noor Paul'.split()  # noqa: SIM905
PLACES = 'Leeds Lyon Porto Ghent Turin Oslo Riga Bonn Graz Cork Brno Malmo'.split()  # noqa: SIM905
DAYS = 'Monday Tuesday Wednesday Thursday Friday Saturday Sunday tomorrow tonight'.split()  # noqa: SIM905
THINGS = 'laptop camera bicycle jacket printer phone lamp watch chair headphones kettle bag'.split()  # noqa: SIM905
TOPICS = 'budget report schedule contract release survey draft server timetable invoice'.split()  # noqa: SIM905
NUMBERS = [str(n) for n in (2, 3, 5, 7, 10, 12, 15, 20, 25, 30, 40, 50, 60, 75, 90, 100, 250, 500)]

# Topics of mail; each a list of phrases, in which {slots} are filled at random.
PHRASES = {
    'work': [
        'please find the {topic} attached',
        'can you review the {topic} before {day}',
        'we moved the meeting on the {topic} to {day} at {number}',
        '{name} has some comments on the {topic}',
        'the {topic} still needs numbers from the {place} office',
        'I will be out of the office until {day}',
        'let us talk about the {topic} when {name} is back',
    ],
    'family': [
        'are you coming for dinner on {day}',
        '{name} had a lovely birthday in {place}',
        'the children want to visit you in {place}',
        'I have put some photos of the garden in the folder',
        'grandma says thank you for the {thing}',
        'could you pick up {name} from school on {day}',
        'we stayed {number} days with {name} and it rained',
    ],
    'orders': [
        'your order of a {thing} has been shipped',
        'your parcel will arrive on {day} between {number} and {number}',
        'you paid {number} euros for the {thing}',
        'please keep this receipt for the {thing}',
        'you can return the {thing} within {number} days',
        'your invoice number is {number}{number}',
        'thank you for shopping with us in {place}',
    ],
    'newsletter': [
        'this week we tell you about {place} and the {thing}',
        '{name} writes about {number} years in {place}',
        'read the whole story on our pages',
        'our readers voted for the {thing} of the year',
        'you receive this because you subscribed to our letter',
        'next {day} we visit the museum of {place}',
        'the {topic} of our society is on page {number}',
    ],
    'offers': [
        'save {number} percent on every {thing} until {day}',
        'buy one {thing} and get another for free',
        'our best prices for a {thing} end {day}',
        'order now and pay nothing for delivery',
        'click here for {number} more offers',
        'only {number} pieces of the {thing} are left',
        'members get a {thing} for half the price',
    ],
    'fraud': [
        'your account has been locked, confirm your password now',
        'you have won {number}00000 dollars in the {place} lottery',
        'dear friend, I am the widow of a banker from {place}',
        'send us your card number to receive the {thing}',
        'click here within {number} hours or lose your account',
        'earn {number}00 dollars a day from home, no risk',
        'this pill makes you lose {number} kilos, guaranteed',
    ],
}
GREETINGS = ['hello {name},', 'dear {name},', 'hi,', 'good morning,', 'dear customer,', '']
ENDINGS = ['regards, {name}', 'best wishes {name}', 'thanks', 'yours, {name}', 'the team', '']
SLOTS = dict(name=NAMES, place=PLACES, day=DAYS, thing=THINGS, topic=TOPICS, number=NUMBERS)
STRAY = 0.15  # of sentences from any topic: honest mail quotes offers, fraud talks of meetings
SPAM = ('offers', 'fraud')


def mail(rng: np.random.Generator, topic: str, phrases: slice) -> str:
    """One e-mail on a topic, two to six sentences, of these of its phrases.

    >>> mail(np.random.default_rng(0), 'work', slice(None)).count('.') >= 2
    True
    """
    sentences = []
    for _ in range(rng.integers(2, 7)):
        stray = rng.random() < STRAY
        of = PHRASES[str(rng.choice(list(PHRASES))) if stray else topic]
        sentences.append(f'{rng.choice(of[phrases])}. ')
    whole = [str(rng.choice(GREETINGS)), ' ', *sentences, str(rng.choice(ENDINGS))]
    return filled(rng, ''.join(whole)).strip()


def filled(rng: np.random.Generator, text: str) -> str:
    """The text with every {slot} filled."""
    parts = text.split('{')
    for n, part in enumerate(parts[1:], 1):
        slot, _, rest = part.partition('}')
        parts[n] = f'{rng.choice(SLOTS[slot])}{rest}'
    return ''.join(parts)


class SyntheticMail(tfds.core.GeneratorBasedBuilder):
    """Synthetic: e-mails on six topics, put together from phrases with names filled in.

    Nobody wrote or received any of it. One sentence in seven is from another topic. Labels are
    balanced, and everything comes from one seed. The source of `synthetic_spam`.
    """

    VERSION = tfds.core.Version('1.0.0')
    SYNTHETIC: ClassVar[str] = 'e-mails put together from phrases at random.'
    SEED: ClassVar[int] = 61
    COUNTS: ClassVar[dict[str, int]] = {'train': 6000, 'test': 1200}
    LABELS: ClassVar[tuple[str, ...]] = tuple(PHRASES)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=self.__doc__,
            features=tfds.features.FeaturesDict(
                {
                    'text': tfds.features.Text(),
                    'label': tfds.features.ClassLabel(names=list(self.LABELS)),
                }
            ),
            supervised_keys=('text', 'label'),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in self.COUNTS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        rng = np.random.default_rng((self.SEED, list(self.COUNTS).index(split)))
        for key in range(self.COUNTS[split]):
            text, label = self.example(rng, key)
            yield key, {'text': text, 'label': label}

    def example(self, rng: np.random.Generator, key: int) -> tuple[str, int]:
        """Text and label of example `key`; the first four phrases of each topic."""
        label = key % len(self.LABELS)
        return mail(rng, self.LABELS[label], slice(0, 4)), label


class SyntheticSpam(SyntheticMail):
    """Synthetic: e-mails that are spam (offers, fraud) or ham (work, family, orders, newsletters).

    Put together from phrases as `synthetic_mail`, two fifths of them spam. All are of other
    phrases than those of `synthetic_mail`, so that only names, things and ways of speaking are
    shared. Nobody wrote or received any of it.
    """

    SEED: ClassVar[int] = 62
    COUNTS: ClassVar[dict[str, int]] = {'train': 1500, 'test': 1000}
    LABELS: ClassVar[tuple[str, ...]] = ('ham', 'spam')

    def example(self, rng: np.random.Generator, key: int) -> tuple[str, int]:
        """Text and label of example `key`; the other phrases of each topic."""
        label = int(key % 5 < 2)
        topics = SPAM if label else [topic for topic in PHRASES if topic not in SPAM]
        return mail(rng, str(rng.choice(topics)), slice(4, None)), label
