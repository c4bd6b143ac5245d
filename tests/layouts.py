"""Layouts of tables that people have, as rows of made-up events."""

import hashlib
import itertools
import random

import numpy as np

DAY = 86400
ROW = itertools.count()


def made(seed=0, users=20, items=30, events=230):
    """Users 0.., items 0.., a grade from 1 to 5 and seconds since 1970, an event each, pairs apart."""
    rng = random.Random(seed)
    pairs = [(user, item) for user in range(users) for item in range(items)]
    chosen = rng.sample(pairs, events)
    if seed % 2:
        chosen.sort()
    return [
        (user, item, rng.choice([3, 4, 5, 5, 4, 2]), 1_300_000_000 + rng.randrange(10**7))
        for user, item in chosen
    ]


def iso(seconds):
    return str(np.datetime64(seconds, "s")).replace("T", " ")


def asin(item):
    return f"B0{item:08X}" if item % 2 else f"0{item * 7919 % 10**8:08d}X"


def amazon_user(user):
    return f"A{user * 982451653 % 36**8:013X}"


def sha1(n):
    return hashlib.sha1(f"{n}".encode()).hexdigest()


def mbid(n):
    text = sha1(n)[:32]
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


# name: header (None: there is none), separator, row, expected user, item, time and value
LAYOUTS = {
    "movielens": (
        "userId,movieId,rating,timestamp",
        ",",
        lambda u, i, v, t: (u + 1, i + 1, v, t),
        "userId movieId timestamp rating",
    ),
    "movielens 100k": (None, "\t", lambda u, i, v, t: (u + 1, i + 1, v, t), "1 2 4 3"),
    "movielens 1m": (None, "::", lambda u, i, v, t: (u + 1, i + 1, v, t), "1 2 4 3"),
    "movielens tags": (
        "userId,movieId,tag,timestamp",
        ",",
        lambda u, i, v, t: (u, i, f"tag {v} {t % 7}", t),
        "userId movieId timestamp -",
    ),
    "amazon ratings": (
        None,
        ",",
        lambda u, i, v, t: (amazon_user(u), asin(i), float(v), t // DAY * DAY),
        "1 2 4 3",
    ),
    "amazon ratings 2018": (
        None,
        ",",
        lambda u, i, v, t: (asin(i), amazon_user(u), float(v), t // DAY * DAY),
        "2 1 4 3",
    ),
    "amazon 2023": (
        "rating,title,asin,parent_asin,user_id,timestamp,helpful_vote,verified_purchase",
        ",",
        lambda u, i, v, t: (
            v,
            f"Good {t}",
            asin(i),
            asin(i // 2 * 2),
            "AE" + amazon_user(u),
            t * 1000,
            0,
            "True",
        ),
        "user_id parent_asin timestamp rating",
    ),
    "amazon reviews": (
        "reviewerID,asin,reviewerName,reviewText,overall,summary,unixReviewTime,reviewTime",
        "\t",
        lambda u, i, v, t: (amazon_user(u), asin(i), f"Ann {u}", "so so " * 20, v, "Nice", t, "09 13, 2009"),
        "reviewerID asin unixReviewTime overall",
    ),
    "amazon us": (
        "marketplace\tcustomer_id\treview_id\tproduct_id\tproduct_parent\tproduct_title\tproduct_category\tstar_rating\thelpful_votes\treview_date",
        "\t",
        lambda u, i, v, t: (
            "US",
            10_000_000 + u,
            f"R{t}",
            asin(i),
            900 + i,
            f"Thing {i}",
            "Toys",
            v,
            0,
            iso(t)[:10],
        ),
        "customer_id product_id review_date star_rating",
    ),
    "retailrocket": (
        "timestamp,visitorid,event,itemid,transactionid",
        ",",
        lambda u, i, v, t: (t * 1000, u, "view" if v < 5 else "addtocart", i, ""),
        "visitorid itemid timestamp event",
    ),
    "retailrocket bare": (
        None,
        ",",
        lambda u, i, v, t: (t * 1000, u + 1000, "view" if v < 5 else "addtocart", i + 7),
        "2 4 1 3",
    ),
    "netflix": (
        "Cust_Id,Rating,Date,Movie_Id",
        ",",
        lambda u, i, v, t: (u, v, iso(t)[:10], i),
        "Cust_Id Movie_Id Date Rating",
    ),
    "gowalla": (
        None,
        "\t",
        lambda u, i, v, t: (
            u,
            iso(t).replace(" ", "T") + "Z",
            30.2359091167 + i / 7,
            -97.7951395833 - i / 9,
            22847 + i,
        ),
        "1 5 2 -",
    ),
    "gowalla named": (
        "user,check-in time,latitude,longitude,location id",
        "\t",
        lambda u, i, v, t: (u, iso(t).replace(" ", "T") + "Z", 30.2359091167 + i / 7, -97.79513, 22847 + i),
        "user|location id|check-in time|-",
    ),
    "brightkite": (
        None,
        "\t",
        lambda u, i, v, t: (u, iso(t).replace(" ", "T") + "Z", 39.747652 + i, -104.99251, sha1(i)),
        "1 5 2 -",
    ),
    "foursquare": (
        None,
        "\t",
        lambda u, i, v, t: (
            u,
            sha1(i)[:24],
            sha1(i % 7)[:24],
            f"Cafe {'ABCDEFG'[i % 7]}",
            40.719810375 + i / 99,
            -74.002581 - i / 99,
            -240,
            "Tue Apr 03 18:00:09 +0000 2012" if v < 4 else "Wed Apr 04 18:00:09 +0000 2012",
        ),
        "1 2 8 -",
    ),
    "foursquare named": (
        "userId,venueId,venueCategoryId,venueCategory,latitude,longitude,timezoneOffset,utcTimestamp",
        ",",
        lambda u, i, v, t: (
            u,
            sha1(i)[:24],
            sha1(i % 7)[:24],
            "Cafe",
            40.719810375,
            -74.002581,
            -240,
            "Tue Apr 03 18:00:09 +0000 2012",
        ),
        "userId venueId utcTimestamp -",
    ),
    "lastfm 360k": (
        None,
        "\t",
        lambda u, i, v, t: (sha1(u), mbid(i), f"the band {i}", t % 1000 * (1 + 20 * (v == 2)) + 1),
        "1 2 - 4",
    ),
    "lastfm 1k": (
        None,
        "\t",
        lambda u, i, v, t: (
            f"user_{u:06}",
            iso(t).replace(" ", "T") + "Z",
            mbid(i // 3),
            f"the band {i // 3}",
            mbid(100 + i),
            f"song {i} of it",
        ),
        "1 5 2 -",
    ),
    "lastfm hetrec": (
        "userID\tartistID\tweight",
        "\t",
        lambda u, i, v, t: (u, i, v * 311),
        "userID artistID - weight",
    ),
    "lastfm named": (
        "usersha1,artmbid,artname,plays",
        ",",
        lambda u, i, v, t: (sha1(u), mbid(i), f"band {i}", v * 17),
        "usersha1 artmbid - plays",
    ),
    "taste profile": (None, "\t", lambda u, i, v, t: (sha1(u), f"SO{sha1(i)[:16].upper()}", v), "1 2 - 3"),
    "taobao": (
        None,
        ",",
        lambda u, i, v, t: (u, 2268318 + i, 2520377 + i % 5, "pv" if v < 5 else "buy", t),
        "1 2 5 4",
    ),
    "yoochoose": (
        None,
        ",",
        lambda u, i, v, t: (u, iso(t).replace(" ", "T") + ".277Z", 214536502 + i, "S" if v < 4 else "0"),
        "1 3 2 4",
    ),
    "rees46": (
        "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session",
        ",",
        lambda u, i, v, t: (
            iso(t) + " UTC",
            "view" if v < 5 else "purchase",
            i,
            2053013555631882655,
            "a.b",
            "apple",
            1081.98,
            500000000 + u,
            mbid(t),
        ),
        "user_id product_id event_time event_type",
    ),
    "yelp": (
        "review_id,user_id,business_id,stars,useful,funny,cool,text,date",
        ",",
        lambda u, i, v, t: (sha1(t)[:22], sha1(u)[:22], sha1(i)[:22], v, 0, 1, 2, "good " * 30, iso(t)),
        "user_id business_id date stars",
    ),
    "book-crossing": (
        "User-ID;ISBN;Book-Rating",
        ";",
        lambda u, i, v, t: (u + 276725, f"{i + 345339681:010}", v * 2),
        "User-ID ISBN - Book-Rating",
    ),
    "goodbooks": ("user_id,book_id,rating", ",", lambda u, i, v, t: (u, i, v), "user_id book_id - rating"),
    "goodreads": (
        "user_id,book_id,is_read,rating,is_reviewed",
        ",",
        lambda u, i, v, t: (u, i, 1, v, 0),
        "user_id book_id - rating",
    ),
    "steam": (
        None,
        ",",
        lambda u, i, v, t: (
            151603712 + u,
            f"The Game {'ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÜÉ'[i]} of it",
            "play" if v > 3 else "purchase",
            v / 10,
            0,
        ),
        "1 2 - 3",
    ),
    "steam named": (
        "user_id,app_id,hours,is_recommended,date",
        ",",
        lambda u, i, v, t: (u, i, v * 7.5, "true", iso(t)[:10]),
        "user_id app_id date is_recommended",
    ),
    "online retail": (
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country",
        ",",
        lambda u, i, v, t: (
            536365 + t % 50,
            f"{85123 + i}A",
            "WHITE HEART",
            v,
            "12/1/2010 8:26",
            2.55,
            float(17850 + u),
            "France",
        ),
        "CustomerID StockCode InvoiceDate Quantity",
    ),
    "online retail 2": (
        "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country",
        ",",
        lambda u, i, v, t: (
            536365 + t % 50,
            f"{85123 + i}A",
            "WHITE HEART",
            v,
            iso(t),
            2.55,
            17850 + u,
            "France",
        ),
        "Customer ID|StockCode|InvoiceDate|Quantity",
    ),
    "dunnhumby": (
        "household_key,BASKET_ID,DAY,PRODUCT_ID,QUANTITY,SALES_VALUE,STORE_ID,WEEK_NO",
        ",",
        lambda u, i, v, t: (u, t, t % 700, 825123 + i, v, 1.39, 364, 1),
        "household_key PRODUCT_ID DAY QUANTITY",
    ),
    "h&m": (
        "t_dat,customer_id,article_id,price,sales_channel_id",
        ",",
        lambda u, i, v, t: (iso(t)[:10], sha1(u), f"0{663713001 + i}", 0.0508 + v, 2),
        "customer_id article_id t_dat -",
    ),
    "diginetica": (
        "sessionId;userId;itemId;timeframe;eventdate",
        ";",
        lambda u, i, v, t: (t % 40, u, 81766 + i, t % 99999, iso(t)[:10]),
        "userId itemId eventdate -",
    ),
    "instacart": (
        "user_id,order_id,product_id,add_to_cart_order,reordered",
        ",",
        lambda u, i, v, t: (u, t, i, v, 1),
        "user_id product_id - -",
    ),
    "food.com": (
        "user_id,recipe_id,date,rating,u,i",
        ",",
        lambda u, i, v, t: (u + 400, i + 900, iso(t)[:10], v, u, i),
        "user_id recipe_id date rating",
    ),
    "beer": (
        "brewery_id,brewery_name,review_time,review_overall,review_aroma,review_profilename,beer_style,beer_name,beer_abv,beer_beerid",
        ",",
        lambda u, i, v, t: (i % 9, "Brew", t, v + 0.5, v, f"drinker of {u}", "Ale", f"ale {i}", 5.0, i),
        "review_profilename beer_beerid review_time review_overall",
    ),
    "kuairec": (
        "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio",
        ",",
        lambda u, i, v, t: (
            u,
            i,
            v * 1000,
            4000,
            iso(t) + ".123",
            iso(t)[:10].replace("-", ""),
            t + 0.123,
            v / 3,
        ),
        "user_id video_id timestamp watch_ratio",
    ),
    "msd kaggle": (
        "msno,song_id,source_type,target",
        ",",
        lambda u, i, v, t: (sha1(u), sha1(i), "local", 1),
        "msno song_id - target",
    ),
    "libimseti": (
        "UserID,ProfileID,Rating",
        ",",
        lambda u, i, v, t: (u, i + 100, v),
        "UserID ProfileID - Rating",
    ),
    "airbnb": (
        "listing_id,id,date,reviewer_id,reviewer_name,comments",
        ",",
        lambda u, i, v, t: (i, t, iso(t)[:10], u, "Ann", "fine"),
        "reviewer_id listing_id date -",
    ),
    "reddit": (
        "author,subreddit,created_utc",
        ",",
        lambda u, i, v, t: (f"nick{u}", f"r{i}", t),
        "author subreddit created_utc -",
    ),
    "github": (
        "actor,repo,type,created_at",
        ",",
        lambda u, i, v, t: (f"a{u}", f"o/{i}", "WatchEvent", iso(t).replace(" ", "T") + "Z"),
        "actor repo created_at type",
    ),
    "pandas index": (",user,item,rating", ",", lambda u, i, v, t: (next(ROW), u, i, v), "user item - rating"),
    "row numbers": (
        "Unnamed: 0,user_id,anime_id,rating",
        ",",
        lambda u, i, v, t: (next(ROW), u, i, v),
        "user_id anime_id - rating",
    ),
    "spanish": (
        "fecha_compra,id_cliente,código_producto,cantidad",
        ",",
        lambda u, i, v, t: (iso(t)[:10], u, f"p{i}", v),
        "id_cliente código_producto fecha_compra cantidad",
    ),
    "german": (
        "Datum;Kundennummer;Artikelnummer;Menge",
        ";",
        lambda u, i, v, t: (f"{t % 28 + 1:02}.{t % 12 + 1:02}.2020", u, i, v),
        "Kundennummer Artikelnummer Datum Menge",
    ),
    "french": (
        "date_achat,utilisateur,livre,note",
        ",",
        lambda u, i, v, t: (iso(t)[:10], f"n° {u}", f"l{i}", v),
        "utilisateur livre date_achat note",
    ),
    "russian": (
        "Дата,Пользователь,Товар,Оценка",
        ",",
        lambda u, i, v, t: (iso(t)[:10], u, i, v),
        "Пользователь Товар Дата Оценка",
    ),
    "chinese": (
        "用户ID,商品编号,评分,时间戳",
        ",",
        lambda u, i, v, t: (u, i, v, t),
        "用户ID 商品编号 时间戳 评分",
    ),
    "japanese": (
        "ユーザーID,商品ID,評価,日付",
        ",",
        lambda u, i, v, t: (u, i, v, iso(t)[:10]),
        "ユーザーID 商品ID 日付 評価",
    ),
    "korean": ("사용자,상품,평점", ",", lambda u, i, v, t: (u, i, v), "사용자 상품 - 평점"),
    "two without names": (None, ",", lambda u, i, v, t: (f"u{u}", f"i{i}"), "1 2 - -"),
    "two numbers": (None, ",", lambda u, i, v, t: (u, i + 500), "1 2 - -"),
    "swapped by values": (None, ",", lambda u, i, v, t: (f"item{i}", f"user{u}", t), "2 1 3 -"),
    "by values": (
        "left,right,grade",
        ",",
        lambda u, i, v, t: (f"movie_{i}", f"user_{u}", v),
        "right left - grade",
    ),
    "unknown pair": ("a,b", ",", lambda u, i, v, t: (u, f"x{i}"), "a b - -"),
    "one unknown": (
        "customer,thing_x,when",
        ",",
        lambda u, i, v, t: (u, f"x{i}", t),
        "customer thing_x when -",
    ),
    "unknown before a user": (
        "thing_x,customer",
        ",",
        lambda u, i, v, t: (f"x{i}", u),
        "customer thing_x - -",
    ),
    "sessions": (
        "session_id,item_id,ts",
        ",",
        lambda u, i, v, t: (u, i, t * 1000),
        "session_id item_id ts -",
    ),
    "mail": (
        "email,sku,purchased_at",
        ",",
        lambda u, i, v, t: (f"u{u}@example.org", f"SKU-{i}", iso(t)),
        "email sku purchased_at -",
    ),
    "hashes": (
        "user_hash,content_id,event,ts",
        ",",
        lambda u, i, v, t: (sha1(u), i, "play", iso(t)),
        "user_hash content_id ts event",
    ),
    "camel": (
        "eventTime,eventType,memberId,jobPostingId",
        ",",
        lambda u, i, v, t: (iso(t), "apply", u, i),
        "memberId jobPostingId eventTime eventType",
    ),
    "game": (
        "playerid,gameid,playtime_forever",
        ",",
        lambda u, i, v, t: (76561197960265728 + u, i, v * 60),
        "playerid gameid - playtime_forever",
    ),
    "title alone": (
        "customer_name,movie_title,stars",
        ",",
        lambda u, i, v, t: (f"Ann the {u}", f"Film no {i}", v),
        "customer_name movie_title - stars",
    ),
}
