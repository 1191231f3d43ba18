"""A generator of simple stories: each is grown from the grammar below, where [a|b] chooses and {slot} inserts."""

import random
import re

import words as w

CHOICE = re.compile(r"\[([^\[\]]*)\]")


def grow(rng: random.Random, text: str, slots: dict) -> str:
    """Resolve the innermost choices first, then fill the slots."""
    while True:
        text, n = CHOICE.subn(lambda m: rng.choice(m.group(1).split("|")), text)
        if not n:
            return text.format_map(slots)


def a(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" or noun.startswith("honest") else "a ") + noun


def person(rng: random.Random, tag: str) -> dict:
    """A figure's name and pronouns under slots that begin with `tag`."""
    kind = rng.random()
    she = rng.random() < 0.5
    if kind < 0.7:
        name = rng.choice(w.GIRLS if she else w.BOYS)
        full = f"{a(rng.choice(w.TRAITS))} {'girl' if she else 'boy'} called {name}"
    elif kind < 0.85:
        animal = rng.choice(w.ANIMALS)
        name, full = f"the {animal}", f"{a(rng.choice(w.TRAITS))} {animal}"
    else:
        trade = rng.choice(w.TRADES)
        name, full = f"the {trade}", f"{a(rng.choice(['old', 'young', 'poor', 'rich', *w.TRAITS]))} {trade}"
    he, him, his = ("she", "her", "her") if she else ("he", "him", "his")
    up = name[0].upper() + name[1:]
    return {tag: name, tag.upper(): up, f"{tag}_full": full, f"{tag}_he": he, f"{tag}_He": he.capitalize(),
            f"{tag}_him": him, f"{tag}_his": his, f"{tag}_His": his.capitalize()}


OPENING = [
    "Once upon a time there was {h_full} who lived in a {place}.",
    "In a {place} lived {h_full}.",
    "{h_full_up} lived in a {place}[| with {h_his} {kin}| together with {f_full}].",
    "A long time ago, in a {place}, there lived {h_full}.",
    "There was once {h_full}. {h_He} lived in a {place}[| and was never bored| and knew everybody there].",
]
HABIT = [
    "Every [morning|evening|day] {h_he} [walked to {spot}|went to {spot} and looked at the [clouds|boats|birds]"
    "|sat by the window and ate {food}|helped {h_his} {kin} with the work].",
    "{H} liked {food} more than anything else.",
    "What {h_he} loved most was {h_his} {q} {thing}.",
    "{h_He} was [never|seldom|often] {mood}, and {h_his} {kin} said that this was [a gift|quite right|no wonder].",
    "{h_His} best friend was {f}, who lived near {spot}.",
    "Nobody in the whole [village|town|valley] could [sing|run|cook|laugh|whistle] like {h}.",
]
MIDDLE = {
    "lost": [
        "{time}, {weather}, {h} could not find the {c} {thing}. {h_He} looked [under the bed|behind the door|in every room"
        "|in the garden], but it was [gone|not there|nowhere].",
        '"Have you seen my {thing}?" {h_he} asked {f}. "[No|Not today|I am sorry]," said {f}, "but I will help you to look for it."',
        "Together they went to {spot}. [There they asked {o}|On the way they met {o}], who [shook {o_his} head|thought for a long time|smiled].",
        '"I saw something {c} near {spot2}," said {o}. [So they ran there at once|They thanked {o_him} and went on].',
        "And there it was: the {c} {thing} was lying [in the grass|under a stone|between two roots|in a puddle]!",
        "{H} was so {glad} that {h_he} [danced|laughed|gave {f} a hug|began to sing]. From that day on {h_he} always "
        "kept the {thing} in {h_his} [pocket|room|bag].",
    ],
    "help": [
        "{time} {h} met {f} at {spot}. {F} looked very {sad}.",
        '"What is the matter?" asked {h}. "My {thing} is broken," said {f}, "and [nobody can mend it|I need it tomorrow|it was a present from my {kin}]."',
        "{H} thought about it [all day|for a while|the whole night]. Then {h_he} went to {o}, who knew a lot about such things.",
        '"[Bring it to me|Let me see it|Show it to me]," said {o}. {O} took [a hammer and some nails|a needle and thread|a little glue|a piece of string] and worked until the sun went down.',
        "When the {thing} was [whole again|as good as new|mended], {f} did not know what to say.",
        '"[Thank you!|You are a true friend,|How can I thank you?]" {f_he} said at last. "[It was nothing|That is what friends are for]," said {h}, and they ate {food} together.',
    ],
    "storm": [
        "{time} {h} and {f} were [walking|playing|working] near {spot}. Suddenly {weather}, and a great storm began.",
        "The wind was so strong that [the trees bent down|the doors flew open|the boats turned over]. {F} was afraid.",
        '"[Hold my hand|Come with me|Do not be afraid]," said {h}. "I know a place where we will be safe."',
        "They ran to {spot2}, where {o} had lit a fire. {O} gave them {food} and a [warm|dry|thick] blanket.",
        "All night long the rain fell on the roof, and {o} told them [stories about the sea|a story about a {c} {thing}|how {o_he} had come to this place].",
        "In the morning the storm was over. [The air was fresh and everything was bright|The sun came out and the birds were singing], and they walked home [slowly|hand in hand|without a word].",
    ],
    "market": [
        "{time} {h_his} {kin} said to {h}: \"Go to the market and buy {food}. Here are {number} coins.\"",
        "{H} took the {c} basket and went along the [road|river|path]. {weather_up}.",
        "At {spot} {h_he} met {o}, who was selling {a_thing}. \"How much is it?\" asked {h}. \"Only {number} coins,\" said {o}.",
        "{H} looked at the {thing} for a long time. {h_He} wanted it very much, but {h_he} had promised to bring {food}.",
        '"[I cannot buy it|It is too dear for me|Not today]," {h_he} said. Then {o} laughed. "You are honest. Take it, it is yours."',
        "So {h} came home with {food} and with the {thing}. {h_His} {kin} could hardly believe it.",
    ],
    "secret": [
        "{time} {h} found a {q} {thing} near {spot}. It was {c}, and [a name|a number|a small star|a strange word] was written on it.",
        "{h_He} showed it to {f}. \"[I know what it is,|This is very old,|Where did you find it?]\" said {f}. \"We must take it to {o}.\"",
        "{O} lived at {spot2}. {o_He} put on {o_his} glasses and looked at the {thing} from all sides.",
        '"It belonged to a [king|captain|thief|queen]," said {o}. "They say that whoever has it will [never be lonely|find a treasure|always come home]."',
        "{H} and {f} looked at each other. They were not sure [whether it was true|what to think], but [they kept the secret|they told nobody|their hearts beat fast].",
        "Many years later, when {h} was old, the {thing} still [stood on the shelf|hung beside the door|lay in a drawer]. And {h_he} had never been lonely.",
    ],
    "contest": [
        "{time} there was a great [race|feast|contest] at {spot}. {H} wanted to win the {c} {thing}.",
        "{F} wanted to win it, too. \"I am [faster|stronger|cleverer] than you,\" said {f}. \"We will see,\" said {h}.",
        "Everybody came to watch: {o}, the whole school and {number} {animal}s. {weather_up}.",
        "At first {f} was far in front. But near {spot2} {f_he} [fell over a stone|lost the way|stopped to eat {food}].",
        "{H} could have [run past|won] now. Instead {h_he} stopped and [helped {f_him} up|waited|gave {f_him} {h_his} hand].",
        "They came in together as the last of all. But {o} gave both of them a prize: half of {food} for each[.|, and everybody clapped.]",
    ],
    "journey": [
        "{time} {h} packed {h_his} {thing} and {food} and set out to see the [sea|world|mountains|city].",
        "On the first day {h_he} came to {spot}. There {h_he} met {f}. \"Where are you going?\" asked {f}. \"Far away,\" said {h}. \"Then I will come with you.\"",
        "On the second day {weather}, and they had to [cross a river|climb a steep hill|sleep under a tree]. They shared the last of {food}.",
        "On the third day they reached {spot2}, where {o} asked them {number} questions. {H} knew all the answers but one.",
        '"[Go home|Turn back]," said {o}, "the thing you are looking for is [there|behind your own door|where you came from]."',
        "So they walked back the whole way. And when {h} saw [the light in the window|{h_his} {kin} at the door|the smoke above the roof], {h_he} knew that {o} had been right.",
    ],
    "garden": [
        "{time} {h} put a {c} seed into the earth near {spot}. {f_up_or} laughed: \"Nothing will ever grow there.\"",
        "{H} gave it water every day. After {number} days there was [a green leaf|a thin stem], and after {number} weeks it was as high as a [chair|door|house].",
        "Then {weather}, and {h} was {sad}. {h_He} covered the plant with {h_his} {c} blanket and sat beside it all night.",
        "In the morning {o} came by and stopped. \"I have never seen such a [flower|tree] in my life,\" said {o}.",
        "In autumn it bore {number} golden [apples|pears|plums]. {H} gave one to {f}, one to {o} and one to {h_his} {kin}.",
        '"[I was wrong|I am sorry that I laughed]," said {f}. "[Never mind|Come back next year]," said {h}, "[there is enough for all of us|and bring a spade]."',
    ],
}
ASIDE = [
    "{weather_up}[|, and nobody was in the street|, and the [crows|gulls|sparrows] were making a great noise].",
    "Somewhere [a dog barked|a bell rang|a door closed|somebody laughed].",
    '"I am {mood}," said {h}. "[So am I|Why|I know]," said {f}.',
    "{F} [said nothing|nodded|looked at the ground|laughed out loud].",
    "It was [already late|nearly noon|getting dark|very quiet], and {h} thought of {food}.",
    "{H} had [never|often] seen {a_thing} like that before.",
]
ENDING = [
    "And if they have not [moved away|changed], they still live in the {place}.",
    "That night {h} slept [well|like a stone|until noon].",
    "{h_His} {kin} was very proud of {h_him}.",
    "Since then {h} and {f} have been [the best of friends|friends for life].",
    '"What a day!" said {h}, and [closed the door|blew out the candle|went to bed].',
    "And that is the end of the story.",
]


def story(rng: random.Random) -> str:
    slots = {}
    while len({slots.get(t) for t in "hfo"}) < 3:
        for tag in "hfo":
            slots.update(person(rng, tag))
    thing, weather = rng.choice(w.THINGS), rng.choice(w.WEATHER)
    spot, spot2 = rng.sample(w.SPOTS, 2)
    slots |= {
        "place": rng.choice(w.PLACES), "spot": spot, "spot2": spot2, "thing": thing, "a_thing": a(thing),
        "c": rng.choice(w.COLOURS), "q": rng.choice(w.QUALITIES), "kin": rng.choice(w.KIN), "food": rng.choice(w.FOODS),
        "mood": rng.choice(w.MOODS), "glad": rng.choice(["happy", "proud", "cheerful", "surprised"]),
        "sad": rng.choice(["sad", "worried", "tired", "lonely", "angry"]), "animal": rng.choice(w.ANIMALS[:15]),
        "time": rng.choice(w.TIMES), "weather": weather, "weather_up": weather[0].upper() + weather[1:],
        "number": rng.choice(w.NUMBERS), "h_full_up": slots["h_full"][0].upper() + slots["h_full"][1:],
        "f_up_or": slots["F"],
    }
    lines = [rng.choice(OPENING), *rng.sample(HABIT, rng.randint(0, 2))]
    first = len(lines)
    for beat in MIDDLE[rng.choice(list(MIDDLE))]:
        lines.append(beat)
        if rng.random() < 0.25:
            lines.append(rng.choice(ASIDE))
    if rng.random() < 0.7:
        lines.append(rng.choice(ENDING))
    grown = [grow(rng, line, slots) for line in lines]
    if rng.random() < 0.5:
        return " ".join(grown)
    return " ".join(grown[:first]) + "\n\n" + " ".join(grown[first:])


def sentences(text: str) -> list[str]:
    """Cut a text after full stops that end a sentence, quotes kept whole with what follows them."""
    return [s for s in re.split(r"(?<=[.!?])\s+(?=[A-Z])", text) if s]
