"""A plug-in of pytest: ffenc is in use before any test module imports a name from LeRobot."""

import ffenc.lerobot

ffenc.lerobot.use()
