"""Names for the constraints and indexes of the models."""

from __future__ import annotations

__all__ = ["NAMING_CONVENTION"]

NAMING_CONVENTION: dict[str, str] = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""A naming convention for the metadata of the models::

    class Model(DeclarativeBase):
        metadata = MetaData(naming_convention=NAMING_CONVENTION)

A constraint that has a name can be changed and dropped on every engine, and has
the same name on each. The names have all columns in them, so that two
constraints of one table do not meet. A ``CheckConstraint`` needs a name of its
own, which becomes the last part. After the form in SQLAlchemy's documentation,
"Configuring Constraint Naming Conventions".
"""
