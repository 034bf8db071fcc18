from qapla_db.env import AlembicEnv
from rotarran import main
from rotarran.application.db import AuditModel

AlembicEnv(main, AuditModel, "audit").run()
