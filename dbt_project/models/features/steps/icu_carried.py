from orchestration.grid import carried


def model(dbt, session):
    dbt.config(materialized="table")
    news = dbt.ref("icu_news").order("concept_no, place").to_arrow_table()
    clocks = dbt.ref("icu_clocks").order("clock_no").to_arrow_table()
    concepts = dbt.ref("concepts").project("concept, carry_h").order("concept").fetchall()
    return carried(news, clocks, concepts)
