{#- What is measured at the arrival in an emergency department, in the unit of its concept. -#}
{% macro triage_concepts() -%}
    {{ return(['temperature', 'heart_rate', 'respiratory_rate', 'spo2', 'sbp', 'dbp', 'pain', 'triage_acuity']) }}
{%- endmacro %}

{#- Points of a value by ranges [low, high, points], ends included; none for a value in no range, or that is not known. -#}
{% macro points(value, ranges) -%}
    case
        {%- for low, high, points in ranges if points %}
            when {{ value }} between {{ low }} and {{ high }} then {{ points }}
        {%- endfor %}
        else 0
    end
{%- endmacro %}

{#- Scores of triage by their step tables: name to measure to ranges. An open end stops at a number that nobody reaches; the
    step beside an integer's is 1, of temperature 0.1, just as the tables are printed. -#}
{% macro triage_tables(variant) -%}
    {#- as printed, a mean pressure of 49 itself scores nothing -#}
    {%- set lowest_mbp = 49 if variant == 'corrected' else 48.9999 -%}
    {{ return({
        'rems': {
            'age': [[45, 54, 2], [55, 64, 3], [65, 74, 5], [75, 999, 6]],
            'mbp': [[159.0001, 999, 4], [130, 159, 3], [110, 129, 2], [50, 69, 2], [-1, lowest_mbp, 4]],
            'heart_rate': [[179.0001, 999, 4], [140, 179, 3], [110, 139, 2], [55, 69, 2], [40, 54, 3], [-1, 39.9999, 4]],
            'respiratory_rate': [[49.0001, 999, 4], [35, 49, 3], [25, 34, 1], [10, 11, 1], [6, 9, 2], [-1, 5.9999, 4]],
            'spo2': [[-1, 74.9999, 4], [75, 85, 3], [86, 89, 1]]
        },
        'cart': {
            'age': [[55, 69, 4], [70, 999, 9]],
            'respiratory_rate': [[21, 23, 8], [24, 25, 12], [26, 29, 15], [30, 999, 22]],
            'heart_rate': [[110, 139, 4], [140, 999, 13]],
            'dbp': [[40, 49, 4], [35, 39, 6], [-1, 34.9999, 13]]
        },
        'news': {
            'respiratory_rate': [[-1, 8, 3], [9, 11, 1], [21, 24, 2], [25, 999, 3]],
            'spo2': [[-1, 91, 3], [92, 93, 2], [94, 95, 1]],
            'temperature': [[-1, 35, 3], [35.0001, 36, 1], [38.0001, 39, 1], [39.0001, 99, 2]],
            'sbp': [[-1, 90, 3], [91, 100, 2], [101, 110, 1], [219.0001, 999, 3]],
            'heart_rate': [[-1, 40, 3], [41, 50, 1], [91, 110, 1], [111, 130, 2], [130.0001, 999, 3]]
        },
        'mews': {
            'sbp': [[-1, 70, 3], [71, 80, 2], [81, 100, 1], [199.0001, 999, 2]],
            'heart_rate': [[-1, 40, 2], [41, 50, 1], [101, 110, 1], [111, 129, 2], [130, 999, 3]],
            'respiratory_rate': [[-1, 8.9999, 2], [15, 20, 1], [21, 29, 2], [30, 999, 3]],
            'temperature': [[-1, 34.9999, 2], [38.5, 99, 2]]
        }
    }) }}
{%- endmacro %}
