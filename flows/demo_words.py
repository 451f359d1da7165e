"""The word banks of the generated catalogue: 40 subjects of invented games, with their genres and vocabularies."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """One latent subject: the words its texts are made of, and the genre its games usually carry."""

    name: str
    genre: str
    title_words: tuple[str, ...]
    words: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


def _topic(name: str, genre: str, titles: str, words: str) -> Topic:
    return Topic(name, genre, tuple(titles.split()), _words(words))


TOPICS: tuple[Topic, ...] = (
    _topic(
        "deep sea",
        "Adventure",
        "Trench Reef Fathom Undertow",
        "submarine, coral reef, diving bell, whale song, sunken wreck, sonar, kelp forest, giant squid, pearl divers",
    ),
    _topic(
        "railways",
        "Simulation",
        "Junction Viaduct Mainline Platform",
        "steam locomotive, timetable, signal box, freight wagons, railway station, tunnel, viaduct, dining car, track",
    ),
    _topic(
        "vampires",
        "Role-playing",
        "Crypt Nocturne Bloodline Belfry",
        "vampire, crypt, blood oath, coffin, moonlit castle, wooden stake, gothic cathedral, bats, old curse",
    ),
    _topic(
        "cooking",
        "Simulation",
        "Skillet Ladle Saffron Simmer",
        "kitchen, chef, recipe, spices, bakery, stew, restaurant, oven, dumplings, menu",
    ),
    _topic(
        "space trade",
        "Strategy",
        "Orbit Nebula Perihelion Starlane",
        "starship, asteroid mining, cargo hold, space station, smugglers, nebula, warp drive, alien bazaar, orbit",
    ),
    _topic(
        "farming",
        "Simulation",
        "Harvest Furrow Orchard Haystack",
        "harvest, orchard, tractor, barn, sheep, seeds, scarecrow, wheat field, village market, milk churn",
    ),
    _topic(
        "samurai",
        "Action",
        "Katana Ronin Blossom Shogun",
        "katana, shogun, dojo, cherry blossom, ronin, honour duel, samurai clan, bamboo temple, tea ceremony",
    ),
    _topic(
        "detectives",
        "Adventure",
        "Alibi Dossier Gumshoe Motive",
        "detective, clues, alibi, murder case, rainy street, informant, case file, fingerprints, "
        "suspects, interrogation",
    ),
    _topic(
        "motor racing",
        "Sports",
        "Apex Chicane Redline Slipstream",
        "race car, pit stop, drifting, engine tuning, lap record, racing tyres, grand prix, pole position, circuit",
    ),
    _topic(
        "football",
        "Sports",
        "Offside Crossbar Kickoff Touchline",
        "football club, striker, league table, stadium, penalty kick, transfer market, coach, goalkeeper, midfield",
    ),
    _topic(
        "castle sieges",
        "Strategy",
        "Rampart Trebuchet Portcullis Vanguard",
        "castle walls, catapult, knights, siege, king, banners, moat, cavalry charge, archers, feudal lords",
    ),
    _topic(
        "zombies",
        "Action",
        "Outbreak Remnant Quarantine Shamble",
        "zombies, outbreak, barricade, survivors, infected, bunker, scavenging, quarantine, undead horde, shotgun",
    ),
    _topic(
        "number puzzles",
        "Puzzle",
        "Parity Lattice Quotient Cipher",
        "number grid, logic, sudoku, tiles, equations, symmetry, patterns, riddles, prime numbers, deduction",
    ),
    _topic(
        "music",
        "Casual",
        "Encore Cadence Tempo Refrain",
        "rhythm, electric guitar, drums, melody, concert, garage band, piano, choir, vinyl records, beat",
    ),
    _topic(
        "pets",
        "Casual",
        "Whisker Paws Kennel Biscuit",
        "kittens, puppies, veterinarian, hamster, pet shelter, grooming, dog training, rabbits, vet clinic",
    ),
    _topic(
        "insects",
        "Strategy",
        "Hive Mandible Burrow Swarm",
        "ant colony, beetles, beehive, queen bee, pollen, termites, larvae, swarm, spiders, wasps",
    ),
    _topic(
        "spies",
        "Action",
        "Embassy Dead-Drop Asset Defector",
        "secret agent, codebreaking, embassy, double agent, microfilm, surveillance, cold war, espionage, disguise",
    ),
    _topic(
        "pirates",
        "Adventure",
        "Galleon Doubloon Mutiny Corsair",
        "pirates, treasure map, cannons, galleon, parrot, rum, mutiny, buried gold, sea battle, buccaneer",
    ),
    _topic(
        "wizard school",
        "Role-playing",
        "Grimoire Wand Alembic Sigil",
        "wizard, spellbook, magic wand, potions, apprentice, academy of magic, familiar, enchantment, alchemy",
    ),
    _topic(
        "factories",
        "Simulation",
        "Conveyor Piston Foundry Cogwork",
        "factory, conveyor belts, assembly line, automation, robot arms, gears, power plant, blueprints, ore smelting",
    ),
    _topic(
        "dinosaurs",
        "Adventure",
        "Fossil Raptor Jurassica Talon",
        "dinosaurs, fossils, raptors, prehistoric jungle, dinosaur eggs, volcano, palaeontologist, "
        "tyrannosaur, dig site",
    ),
    _topic(
        "wild west",
        "Action",
        "Saloon Tumbleweed Spur Marshal",
        "cowboy, saloon, sheriff, revolver, gold rush, stagecoach, outlaws, frontier town, bounty, horses",
    ),
    _topic(
        "hospital",
        "Simulation",
        "Scalpel Ward Triage Pulse",
        "surgeon, ambulance, hospital, patients, diagnosis, nurses, vaccine, operating theatre, emergency room",
    ),
    _topic(
        "city building",
        "Strategy",
        "Skyline Borough Zoning Avenue",
        "city planning, zoning, traffic, skyscrapers, mayor, power grid, budget, suburbs, public transport, sewers",
    ),
    _topic(
        "mountaineering",
        "Sports",
        "Summit Crampon Ridge Icefall",
        "mountain summit, climbing rope, glacier, avalanche, base camp, climbers, thin oxygen, ice axe, cliff face",
    ),
    _topic(
        "romance",
        "Casual",
        "Confession Valentine Rendezvous Sweetheart",
        "dating, love letters, confession, summer romance, school festival, first kiss, heartbreak, wedding, crush",
    ),
    _topic(
        "ancient Egypt",
        "Puzzle",
        "Pharaoh Scarab Obelisk Papyrus",
        "pyramid, pharaoh, mummy, hieroglyphs, tomb, scarab, Nile, sphinx, desert excavation, archaeologist",
    ),
    _topic(
        "vikings",
        "Role-playing",
        "Longship Fjord Rune Saga",
        "viking, longship, Odin, runes, fjord, mead hall, battle axe, saga, raiders, Valhalla",
    ),
    _topic(
        "cyberpunk",
        "Role-playing",
        "Neon Firewall Chrome Synapse",
        "hacker, neon city, cybernetic implants, megacorporation, firewall, drones, data heist, androids, cyberspace",
    ),
    _topic(
        "aviators",
        "Action",
        "Biplane Squadron Tailwind Aileron",
        "biplane, dogfight, squadron, airfield, fighter pilot, bomber, flying ace, cockpit, propeller, air raid",
    ),
    _topic(
        "fishing",
        "Sports",
        "Angler Bobber Trout Tackle",
        "fishing rod, trout, quiet lake, bait, rowing boat, salmon, river bank, angler, fly fishing, big catch",
    ),
    _topic(
        "hauntings",
        "Adventure",
        "Poltergeist Attic Seance Revenant",
        "ghost, haunted house, seance, dark attic, poltergeist, exorcism, creaking doors, apparition, asylum",
    ),
    _topic(
        "card tables",
        "Puzzle",
        "Bluff Royal-Flush Gambit Ante",
        "card deck, poker, chessboard, bluffing, dealer, dice, casino, card tricks, checkmate, betting chips",
    ),
    _topic(
        "fashion",
        "Casual",
        "Catwalk Velvet Bobbin Atelier",
        "fashion design, catwalk, sewing, dresses, boutique, fabric, models, makeup, tailor, wardrobe",
    ),
    _topic(
        "fighters",
        "Sports",
        "Uppercut Turnbuckle Knockout Sparring",
        "boxing ring, wrestler, uppercut, champion belt, martial arts, knockout, sparring, judo throw, gym",
    ),
    _topic(
        "ancient Rome",
        "Strategy",
        "Legion Aqueduct Forum Centurion",
        "Roman senate, gladiators, legions, emperor, colosseum, chariots, aqueduct, centurion, toga, empire",
    ),
    _topic(
        "castaways",
        "Adventure",
        "Driftwood Lagoon Raft Landfall",
        "desert island, raft, campfire, shelter building, coconuts, shipwreck survivor, storm, crafting, lagoon",
    ),
    _topic(
        "trucking",
        "Simulation",
        "Diesel Overland Backhaul Milepost",
        "truck driver, highway, diesel engine, cargo delivery, motel, trailer, petrol station, long haul, road map",
    ),
    _topic(
        "skateboarding",
        "Sports",
        "Kickflip Halfpipe Grind Ollie",
        "skateboard, half-pipe, tricks, street course, skate park, rails, kickflip, graffiti, roller skates, bmx",
    ),
    _topic(
        "dragons",
        "Role-playing",
        "Wyrm Ember Hatchling Drakehold",
        "dragon, hatchling, dragon rider, fire breath, scales, elves, dwarven forge, quest, sorceress, lair",
    ),
)

TITLE_PATTERNS: tuple[str, ...] = (
    "{mood} {noun}",
    "The {mood} {noun}",
    "{noun} of {place}",
    "{noun}: {place}",
    "{place} {noun}",
    "{noun} & {other}",
)
MOODS = _words(
    "Quiet, Last, Hollow, Golden, Crooked, Distant, Second, Restless, Little, Broken, Silver, Endless, "
    "Forgotten, Patient, Wandering, Bright, Secret, Stubborn, Northern, Midnight, Honest, Velvet, Seventh, "
    "Borrowed"
)
PLACES = _words(
    "Ardenmoor, Brackwell, Calidor, Dunmarrow, Elsinby, Farrowgate, Greywick, Hollinstead, Istermoor, "
    "Jorvale, Kestrelholt, Lowmere, Marrowby, Nethercombe, Orrin Minor, Pellwick, Quillhaven, Ravensey, "
    "Saltmarrow, Thornby, Umberfell, Vantry, Westerlow, Yarrowdale, Zephyrine"
)
STUDIOS = _words(
    "Paper Lantern Works, Two Kettles, Ninth Door, Mossback Studio, Tin Heron, Salt & Slate, Wobbly Table, "
    "Longshadow Interactive, Copper Wren, Half Past Games, Blue Ladder, Fernweh Forge, Pocket Orrery, Stray "
    "Comet, Lamplight Collective, Oddly Even"
)
DESCRIPTIONS: tuple[str, ...] = (
    "A {tone} game of {a}, {b} and {c}.",
    "{a}, {b}, {c}: a {tone} evening for one.",
    "{tone} play with {a}, {b} and a surprising amount of {c}.",
    "All about {a} and {b}, with a touch of {c}.",
    "Think {a}. Think {b}. Then come {c}.",
    "Fifty {tone} levels of {a}, {b} and {c}.",
)
VAGUE_DESCRIPTIONS: tuple[str, ...] = (
    "A {tone} game for one or two players.",
    "The {tone} sequel that its fans asked for.",
    "Short, {tone} and made with care.",
    "A {tone} classic, rebuilt from the ground up.",
    "Easy to start, hard to put down.",
)
TONES = _words("cosy, tense, witty, slow, fast, dark, cheerful, strange, hand-drawn, merciless, gentle, sprawling")
PLAY_TAGS = _words(
    "single-player, co-op, pixel art, controller support, early access, short sessions, story rich, "
    "replayable, family friendly, hard"
)
