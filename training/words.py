"""The word lists of the story generator: our own, everyday English."""

GIRLS = """Anna Bella Clara Daisy Ella Fiona Greta Hanna Ida Julia Katie Lena Marta Nora Olga Polly Rosa Sophie Tessa
Una Vera Wendy Yara Zoe Emma Lucy Mia Ruth Sally Iris Judith Dagmar Bianca Amy Jane""".split()
BOYS = """Adam Ben Carl David Emil Felix George Hugo Ivan Jack Karl Leo Max Noah Oscar Peter Quentin Robin Sam Tom
Udo Victor Will Yan Anton Cyril Gustav Igor Konrad Norbert Stefan Henry Oliver Paul Simon""".split()
ANIMALS = """fox hare bear mouse goat crow owl hedgehog badger otter squirrel goose donkey frog cat dog duck sparrow
beaver tortoise""".split()
TRADES = """baker miller fisherman gardener tailor carpenter blacksmith sailor teacher shepherd clockmaker painter
postman doctor weaver potter""".split()
KIN = "mother father grandmother grandfather sister brother aunt uncle cousin".split()

PLACES = """village by the sea|small town at the foot of the mountains|house at the edge of the forest|farm behind the hills
|mill beside the river|little harbour in the north|valley full of apple trees|street with narrow houses
|cottage near the old bridge|castle on a rock|town with seven towers|camp by the lake|lighthouse on a cliff
|quiet island|market town|school on the hill""".replace("\n", "").split("|")
SPOTS = """the old bridge|the mill|the market|the well|the church tower|the edge of the wood|the harbour|the big oak tree
|the lake|the garden gate|the top of the hill|the empty barn|the bakery|the school|the river|the stone wall
|the lighthouse|the station|the meadow|the cave|the little shop|the boat house""".replace("\n", "").split("|")
THINGS = """key kite lantern drum ring map ball book boat whistle basket hat scarf coin letter clock umbrella bell flute
spoon box button mirror rope ladder candle wagon blanket compass feather knife bottle picture violin sledge brush
cup bucket hammer chain ticket""".split()
COLOURS = "red blue green yellow white black silver golden brown grey orange purple".split()
QUALITIES = "small old new tiny heavy broken wooden shiny round strange pretty beautiful plain dusty".split()
FOODS = """bread|apples|soup|a honey cake|cheese|cherries|a pear pie|warm milk|nuts|pancakes|potatoes|plum jam|eggs|fish
|a bowl of porridge|roast chestnuts""".replace("\n", "").split("|")
MOODS = "happy sad tired curious angry proud afraid lonely hungry cheerful worried surprised quiet brave".split()
TRAITS = "kind clever brave shy patient lazy careful stubborn friendly curious quiet cheerful honest gentle".split()
WEATHER = """the sun was shining|it was raining a little|a cold wind came from the sea|snow was falling|the fog was thick
|the sky was clear and blue|dark clouds hung over the hills|it was warm and still|the leaves were turning yellow
|thunder rolled far away""".replace("\n", "").split("|")
TIMES = """One morning|One evening|One day|On a cold winter day|Early in spring|Late in summer|On a Sunday|One rainy afternoon
|Just before sunrise|On the first day of autumn|One night|The next morning""".replace("\n", "").split("|")
NUMBERS = "two three four five six seven eight nine ten twelve".split()

# Plain nouns for lists that are read twice, and for secret words.
NOUNS = """violet hammer lantern ocean whisper marble ticket engine river candle fossil orange ladder winter pepper signal
button copper meadow anchor basket canyon dragon eagle falcon garden harbor island jungle kettle lemon magnet needle
oyster pencil quartz rabbit saddle temple tunnel valley window yellow zipper apple bridge castle desert ember forest
glacier honey ivory jacket kitten lizard mirror nickel onion parrot quiver rocket silver tiger urchin velvet walnut
bottle carpet dollar elbow feather ginger hollow insect jewel ladle mitten number olive planet ribbon spider thunder
turnip vessel wagon almond blanket cactus donkey elephant flower gravel helmet iron jelly lobster monkey nutmeg otter
piano quilt raven shovel tomato umbrella violin wizard barrel cotton dinner engine fiddle goblin hazel""".split()
HOLDERS = "safe door box locker gate chest suitcase cabinet vault drawer trunk cellar garage attic desk cage".split()
