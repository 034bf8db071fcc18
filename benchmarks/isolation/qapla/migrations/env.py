from planets import application
from tables import Base

from qapla_db.env import AlembicEnv

AlembicEnv(application, Base, "main").run()
