from qapla_db.env import AlembicEnv
from rotarran import main
from rotarran.application.db import Model

AlembicEnv(main, Model, "main").run()
